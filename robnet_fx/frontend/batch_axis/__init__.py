"""A batch that a model moves, merges or fixes: found, and put in front again."""
