"""What networks that name the class of a picture have in common."""
