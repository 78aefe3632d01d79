"""Snakemake looks for jobs that can start once for each reason, and not ever more often."""

import threading

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from mdm.study.run.scheduling import look_once_at_a_time


@pytest.fixture
def scheduler(monkeypatch):
    # What the limit of jobs a second calls is still there; otherwise Snakemake has changed and this file can go.
    monkeypatch.setattr(JobScheduler, "_schedule_reevalutation", JobScheduler._schedule_reevalutation)
    look_once_at_a_time()
    scheduler = object.__new__(JobScheduler)
    scheduler._open_jobs = threading.Semaphore(0)
    return scheduler


def test_one_look_is_due_however_often_it_is_asked_for(scheduler):
    before = threading.active_count()
    for _ in range(50):
        scheduler._schedule_reevalutation(0.2)
    assert threading.active_count() <= before + 1
    scheduler._open_jobs.acquire()
    assert not scheduler._open_jobs.acquire(blocking=False)


def test_every_look_can_ask_for_the_next(scheduler):
    for _ in range(20):  # as the scheduler's loop does; it would wait for ever if one were forgotten
        scheduler._schedule_reevalutation(0)
        assert scheduler._open_jobs.acquire(timeout=600)
