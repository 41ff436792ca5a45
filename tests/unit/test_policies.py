"""Retry policies of activities."""

from logflume import errors
from workflows.policies import ARCHIVE_RETRIES, RETRIES, permanent_errors


def test_no_permanent_error_is_retried():
    permanent = {
        name
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, errors.PermanentError)
    }
    assert permanent >= {"ArchiveRefused", "ContentTooLarge", "PartitionError"}
    for policy in (RETRIES, ARCHIVE_RETRIES):
        assert set(policy.non_retryable_error_types or ()) == permanent


def test_subclasses_of_subclasses_are_permanent_too():
    class Base(Exception):
        pass

    class Child(Base):
        pass

    class Grandchild(Child):
        pass

    assert permanent_errors(Base) == ["Base", "Child", Grandchild.__name__]
