"""The tabs of the page: what they show, and what happens when something is pressed."""
