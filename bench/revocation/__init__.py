"""`make revocation`: how long plaintext still flows after a customer has disabled their key."""
