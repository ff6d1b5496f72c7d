"""The sandbox's own small protocol: JSON, and HMAC with a shared secret."""
