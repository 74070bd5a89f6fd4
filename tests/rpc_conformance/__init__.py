"""Real clients of tRPC against our server, and our client against theirs."""
