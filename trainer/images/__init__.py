"""The images of HAM10000, from the file to what a network is shown, and what is drawn on them."""
