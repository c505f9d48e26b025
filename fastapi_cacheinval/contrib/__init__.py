"""What joins the cache to other systems: a module for each, ignorant of the others, over the package's public names."""
