"""Task functions: what makes a function a worker, how its arguments are filled, and what one task comes to."""
