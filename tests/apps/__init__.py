"""Three small apps that look like real ones, each before it was cached and after."""
