"""What the command line reads: arguments, files, pipes and children."""
