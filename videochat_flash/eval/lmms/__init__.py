"""What lmms-eval finds of this project: a model through its entry point, and tasks with the reference's settings."""
