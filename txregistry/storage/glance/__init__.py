"""Glance with its alternate: layers and blobs are images in Glance, all else lies in another engine."""
