"""What is particular to an engine of the journal, and the parts that engines share."""
