"""SQL files: numbered migrations, applied once, and report views, rebuilt every time."""
