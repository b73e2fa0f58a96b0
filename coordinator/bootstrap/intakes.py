"""The intakes of the settings, compiled against the live mapping into the engine's rules."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence

from coordinator import signatures
from coordinator.domain.authority import (
    UNBOUNDED,
    Authority,
    Grant,
    granted_readers,
    lacking_for_insert,
)
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.domain.operation import OperationKind
from coordinator.domain.signing import SignedIntake, TrustedKey
from coordinator.engine.admission import IntakeRules
from coordinator.mapping.grants import ConfiguredGrant, granted
from coordinator.settings import Settings
from coordinator.settings.intakes import Intake
from coordinator.toml_reading import dotted


def intake_rules(settings: Settings, mapping: EntityMapping) -> Mapping[str, IntakeRules]:
    """Give the rules of every topic that units come from.

    Without ``[[intake]]`` tables there is no other topic whose units a cancel could end wrongly:
    then it may end those that came from a topic of another name, too.
    """
    if not settings.intake:
        (alone,) = settings.intakes
        return {alone.topic: IntakeRules(frozenset(alone.reply_to), UNBOUNDED)}
    return {intake.topic: _rules(intake, mapping) for intake in settings.intake}


def judge_grants(settings: Settings, mapping: EntityMapping) -> None:
    """Refuse grants by which no unit could succeed; only the live catalog shows them.

    Raises `ConfigurationInvalid` with all of them.
    """
    mistakes = []
    for at, grant in granted(dict(enumerate(settings.intake))):
        lacking = lacking_for_insert(mapping, _grant(grant))
        if lacking:
            mistakes.append(
                f"{dotted((*at, 'fields'))}: an insert of {grant.entity} must give "
                f"{', '.join(lacking)}, which is not granted"
            )
    if mistakes:
        raise ConfigurationInvalid(mistakes)


def _rules(intake: Intake, mapping: EntityMapping) -> IntakeRules:
    authority = _authority(intake, intake.grants, mapping)
    if intake.signed is None:
        return IntakeRules(frozenset(intake.reply_to), authority)
    keys = {}
    for key in intake.signed.keys:
        own = key.grants is not None
        grants = _authority(intake, key.grants, mapping) if own else authority
        keys[key.id] = TrustedKey(b64decode(key.public_key or ""), grants)
    signed = SignedIntake(
        audience=intake.signed.audience or intake.topic,
        max_age_seconds=intake.signed.max_age_seconds,
        skew_seconds=intake.signed.skew_seconds,
        keys=keys,
        verify=signatures.verify,
    )
    return IntakeRules(frozenset(intake.reply_to), authority, signed)


def _authority(
    intake: Intake,
    grants: Sequence[ConfiguredGrant] | None,
    mapping: EntityMapping,
) -> Authority:
    listed = None if grants is None else [_grant(each) for each in grants]
    return Authority(
        readers=None if listed is None else granted_readers(mapping, listed),
        cancels=frozenset({intake.topic, *intake.cancels}),
        unit_id_prefix=intake.unit_id_prefix,
    )


def _grant(grant: ConfiguredGrant) -> Grant:
    return Grant(
        grant.entity,
        frozenset(OperationKind(each) for each in grant.operations),
        None if grant.fields is None else frozenset(grant.fields),
    )
