"""What all clients together may hold in memory, and who gives way where it is too much."""
