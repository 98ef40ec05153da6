"""What a package's Compose files say, before any host has seen them."""
