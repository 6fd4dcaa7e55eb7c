"""How well workers perform, and what becomes of them: metrics, scores, decision engines, rewards and punishments."""
