"""What the bank's wire knows: tokens, notifications, and the events inside them."""
