"""What is written from the code: `make reference`. No part of the package."""
