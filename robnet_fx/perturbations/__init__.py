"""What is done to an image: a specification that users write, and the rules that bound it."""
