"""Training: one readable loop, exact restarts, progressive stages."""
