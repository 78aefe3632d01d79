"""Text: frozen encoders and the cache of embedded captions."""

# Raised when the same settings give other features; part of every text recipe.
ENCODER_VERSION = 2
