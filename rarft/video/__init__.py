"""Video files: properties, frames and thumbnails."""
