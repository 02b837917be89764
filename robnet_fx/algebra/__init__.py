"""The values that bounds are made of, and the operations on them."""
