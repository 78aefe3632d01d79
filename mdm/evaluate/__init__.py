"""From weights to numbers: pictures, their features, and the scores with their intervals."""
