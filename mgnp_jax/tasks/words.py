"""The words that prompts are filled with. Lists only; each use checks its tokenizer."""

from __future__ import annotations

import re

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

PEOPLE = tuple(
    (word, f"{word}s")
    for word in """teacher doctor farmer lawyer singer writer author driver player worker student
    friend neighbor brother sister mother father son daughter boy girl king queen soldier officer
    artist actor scientist engineer manager leader president judge guard pilot customer patient
    parent guest visitor reader owner dancer user expert agent hunter member professor""".split()
) + (("man", "men"), ("woman", "women"), ("child", "children"))
"""People, singular and plural."""

NEARBY = tuple(
    (word, f"{word}s")
    for word in """car tree table door window house book desk chair cat dog horse truck bike boat
    bridge wall box lamp bed""".split()
)
"""What people are near to, singular and plural."""

COLORS = tuple("red blue green yellow black white brown gray orange purple pink gold".split())

COLORED = OBJECTS + tuple("car door house chair table shirt box pen cup bike boat dress".split())
"""What may have any color."""

PARAMETERS = tuple(
    """file size name path key mode value index list count text data time date line word page user
    group order state label title color width height type source target start end limit model
    field table image number point level version message request filter result parent event address
    column status""".split()
)
"""Words that parameters of functions are called."""

_COUNTRIES = """France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon
Greece:Athens Poland:Warsaw Austria:Vienna Hungary:Budapest Ireland:Dublin England:London
Scotland:Edinburgh Wales:Cardiff Sweden:Stockholm Norway:Oslo Denmark:Copenhagen
Finland:Helsinki Iceland:Reykjavik Belgium:Brussels Switzerland:Bern Ukraine:Kyiv Russia:Moscow
Romania:Bucharest Bulgaria:Sofia Serbia:Belgrade Croatia:Zagreb Albania:Tirana Estonia:Tallinn
Latvia:Riga Lithuania:Vilnius Belarus:Minsk Georgia:Tbilisi Armenia:Yerevan Turkey:Ankara
Cyprus:Nicosia Syria:Damascus Lebanon:Beirut Jordan:Amman Iraq:Baghdad Iran:Tehran Egypt:Cairo
Libya:Tripoli Tunisia:Tunis Algeria:Algiers Morocco:Rabat Sudan:Khartoum Kenya:Nairobi
Uganda:Kampala Somalia:Mogadishu Ghana:Accra Senegal:Dakar Mali:Bamako Angola:Luanda
Zimbabwe:Harare Zambia:Lusaka Rwanda:Kigali Nigeria:Abuja Namibia:Windhoek Cuba:Havana
Jamaica:Kingston Canada:Ottawa Peru:Lima Chile:Santiago Uruguay:Montevideo Ecuador:Quito
Venezuela:Caracas Japan:Tokyo China:Beijing Taiwan:Taipei Vietnam:Hanoi Thailand:Bangkok
Indonesia:Jakarta Nepal:Kathmandu Bangladesh:Dhaka Pakistan:Islamabad Afghanistan:Kabul
Qatar:Doha Bahrain:Manama Oman:Muscat Australia:Canberra"""
CAPITALS: dict[str, str] = dict(re.findall(r"(\w+):(\w+)", _COUNTRIES))
"""Countries whose names need no article, and their capitals."""
