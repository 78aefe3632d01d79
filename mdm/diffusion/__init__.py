"""The noise process, its loss and its reversal: pure functions on tensors."""
