"""Takes messages from the queue in batches and applies each batch in one transaction."""
