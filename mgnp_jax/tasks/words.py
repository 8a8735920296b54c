"""The words that prompts are filled with. Lists only; each use checks its tokenizer."""

from __future__ import annotations

GIRLS = tuple(
    """Mary Anna Emma Sarah Laura Julia Alice Jane Kate Rachel Lisa Linda Karen Susan Nancy
    Helen Maria Diana Rose Grace Emily Jessica Amy Michelle Amanda Melissa Rebecca Stephanie
    Nicole Elizabeth Catherine Christine Victoria Martha Ruth Alexandra Barbara Margaret
    Patricia Jennifer Ashley Hannah Samantha Katherine Claire Charlotte Lucy Sophie Olivia
    Sophia Lily Ruby Ellen Judith Eva Sara Angela Erin Heather Andrea Crystal
    Eleanor Caroline Natalie Lauren Allison Tiffany Vanessa Holly Amber Molly Madison
    Abigail Isabella""".split()
)

BOYS = tuple(
    """John James Robert Michael William David Richard Thomas Charles Joseph Daniel Matthew
    Anthony Mark Paul Steven Andrew Kenneth George Joshua Kevin Brian Edward Ronald Timothy
    Jason Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan Stephen Larry Justin Scott Frank
    Benjamin Gregory Samuel Patrick Alexander Jack Dennis Jerry Aaron Henry Peter Adam
    Douglas Nathan Walter Harold Jeremy Keith Roger Arthur Sean Christian
    Albert Joe Ethan Jesse Willie Billy Bruce Ralph Bobby Johnny Logan Philip Louis Martin
    Simon Oliver Victor Tom""".split()
)

PLACES = tuple(
    """park school market office garden library station hospital museum church hotel
    restaurant theater airport beach""".split()
)

OBJECTS = tuple(
    """book letter ring ball lamp hat coin map camera ticket watch key bottle basket phone
    guitar""".split()
)

EVENTS = tuple(
    """war siege revolt famine drought plague strike festival project journey voyage
    expedition campaign dispute conflict crisis debate survey study trial reign mission
    program experiment investigation construction exhibition tour truce alliance
    partnership boycott blockade occupation migration rebellion uprising recession
    depression boom shortage epidemic pandemic flood feud quarrel romance friendship
    marriage engagement apprenticeship training course series contest tournament league
    season career term regime dynasty empire colony settlement excavation restoration
    renovation search hunt chase pursuit crusade raid invasion battle struggle protest
    riot movement reform transition negotiation treaty contract lease loan audit inquiry
    hearing case lawsuit sentence exile imprisonment retreat pilgrimage celebration
    carnival ceremony conference assembly summit session workshop internship fellowship
    residency vigil fast ban embargo curfew lockdown delay test demonstration eruption
    thaw freeze""".split()
)[:120]
