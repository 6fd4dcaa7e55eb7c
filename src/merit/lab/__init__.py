"""The lab: the product driven by something other than the world.

``simulator`` runs whole worlds in virtual time and judges them; ``planted`` breaks the product on purpose, so that the
judges are judged too.
"""
