"""Reading beside the process that writes."""
