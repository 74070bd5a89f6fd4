"""The three servers, each written as its users would write it. All answer one query: an order by its number."""
