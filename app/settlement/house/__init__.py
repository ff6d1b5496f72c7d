"""Ways to pay that need no other company: by proof, by bank transfer, from a balance."""
