"""The key-value port and its two stores."""
