"""What a paid order still needs: where to, whether, how it travels, and what comes back."""
