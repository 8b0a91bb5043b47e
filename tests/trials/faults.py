"""Faults: who is struck, how, when, and for how long. All of it is drawn from the trial's seed."""

import random
import threading
import time

POLL_SECONDS = 0.004
LONGEST_WAIT_SECONDS = 20


class Moment:
    """When a fault strikes: behind a line that the command has written, or when something holds, and a little later."""

    def __init__(self, name, holds, delay):
        self.name = name
        self.holds = holds
        self.delay = delay

    def wait(self, command):
        """Whether it came while the command ran."""
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while not self.holds():
            if not command.running() or time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        time.sleep(self.delay)
        return command.running()


class Fault:
    """One victim, struck once during one command, on a thread of its own."""

    def __init__(self, role, find_victim, moment, stops, pause, relapse=None):
        self.role = role
        self.find_victim = find_victim
        self.moment = moment
        self.stops = stops  # SIGSTOP and SIGCONT instead of SIGKILL and a restart
        self.pause = pause  # seconds until it is brought back
        self.relapse = relapse  # seconds after its restart when a node is killed again, or None
        self.struck = None  # the victim's name
        self.relapsed = False
        self.on_strike = lambda: None
        self.error = None
        self.thread = None

    def start(self, command):
        self.thread = threading.Thread(target=self.run, args=(command,), daemon=True)
        self.thread.start()

    def run(self, command):
        try:
            self.play(command)
        except ProcessLookupError:
            pass  # it had ended by itself
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def play(self, command):
        if not self.moment.wait(command):
            return
        victim = self.find_victim()
        if victim is None or not victim.busy.acquire(blocking=False):
            return
        try:
            if self.stops:
                victim.stop()
            else:
                victim.kill()
            self.struck = victim.name
            self.on_strike()
            time.sleep(self.pause)
            if self.relapse is not None:
                self.relapsed = victim.relapse(self.relapse)
        finally:
            try:
                if self.struck:
                    victim.bring_back()
            finally:
                victim.busy.release()

    def join(self):
        self.thread.join()
        if self.error:
            raise self.error

    def __str__(self):
        return f"{'stop' if self.stops else 'kill'} {self.role} at {self.moment.name}, {self.pause:.2f} s"


def draw_pause(source, stops):
    """Mostly short; at times longer than a lease (3 s)."""
    if source.random() < 0.08:
        return source.uniform(3.5, 7)
    return source.uniform(0.02, 0.8) if stops else source.choice((0, source.uniform(0, 1)))


def draw_fault(source: random.Random, role, find_victim, moments):
    stops = source.random() < 0.25
    relapse = source.uniform(0, 0.3) if not stops and source.random() < 0.15 else None
    return Fault(role, find_victim, source.choice(moments), stops, draw_pause(source, stops), relapse)
