"""What a person sees: consoles, progress bars, panels and tables. Nothing here computes a figure."""
