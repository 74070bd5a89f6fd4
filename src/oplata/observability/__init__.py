"""What oplata says about itself: to people and machines, never with a secret in it."""
