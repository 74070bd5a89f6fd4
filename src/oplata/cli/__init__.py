"""The command line: one file for each command, none of which imports what ``oplata --help`` does not need."""
