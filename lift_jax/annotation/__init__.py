"""People rate clips: tasks, answers, agreement, and files of ratings."""
