"""CartPole-v1 for many environments at once, in numpy or whatever has its names, such as jax.numpy.

The motion is gymnasium's (`gymnasium.envs.classic_control.cartpole`, after Barto, Sutton and
Anderson 1983), and a test holds it to that. Each step earns 1, so an episode's return is its
length. States are [4, N]: place (m), speed (m/s), angle (rad) and angular speed (rad/s).
"""

from types import ModuleType
from typing import Any

GRAVITY, POLE_MASS, TOTAL_MASS, HALF_POLE, FORCE, STEP_S = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
MOST_PLACE, MOST_ANGLE = 2.4, 0.20943951023931953  # m; 12 degrees
# Each number of an episode's first state lies between minus this and this.
FIRST = 0.05
MOST_STEPS = 500


def moved(xp: ModuleType, states: Any, actions: Any) -> Any:
    """The states [4, N] after a push to the left (0) or to the right (1), actions [N]."""
    place, speed, angle, turning = states
    sine, cosine = xp.sin(angle), xp.cos(angle)
    push = xp.where(actions == 1, FORCE, -FORCE)
    pushed = (push + POLE_MASS * HALF_POLE * turning**2 * sine) / TOTAL_MASS
    # in rad/s^2 and m/s^2
    turned = (GRAVITY * sine - cosine * pushed) / (
        HALF_POLE * (4.0 / 3.0 - POLE_MASS * cosine**2 / TOTAL_MASS)
    )
    driven = pushed - POLE_MASS * HALF_POLE * turned * cosine / TOTAL_MASS
    return xp.stack(
        [
            place + STEP_S * speed,
            speed + STEP_S * driven,
            angle + STEP_S * turning,
            turning + STEP_S * turned,
        ]
    )


def fallen(xp: ModuleType, states: Any) -> Any:
    """Whether each episode has come to its end by itself: [N] bool for states [4, N]."""
    return (xp.abs(states[0]) > MOST_PLACE) | (xp.abs(states[2]) > MOST_ANGLE)
