"""Networks and images: shipped ones, torchvision's, and the visitor's own."""
