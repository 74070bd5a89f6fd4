"""What others would write to do the same, each in the idiom of its library."""
