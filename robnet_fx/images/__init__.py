"""Images: pixels, and the layouts they come in."""
