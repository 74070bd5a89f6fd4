"""What a shop does with its orders: registers them, and asks about them."""
