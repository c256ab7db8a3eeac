"""Units: their names, what they measure, and how many of the base unit they are.

Factors are the exact definitions of the units (SI brochure, international yard and pound, IEC prefixes for
bits and bytes read as powers of ten, since people who ask use GB for both).
"""

from __future__ import annotations

_ROWS = """
time 0.001: millisecond milliseconds ms msec
time 1: second seconds s sec
time 60: minute minutes min
time 3600: hour hours h
time 86400: day days
time 604800: week weeks
month 1: month months
month 12: year years
month 120: decade decades
month 1200: century centuries
length 0.001: millimeter millimeters mm
length 0.01: centimeter centimeters cm cms
length 1: meter meters m
length 1000: kilometer kilometers km kms
length 0.0254: inch inches
length 0.3048: foot feet ft
length 0.9144: yard yards yd yds
length 1609.344: mile miles mi
area 1: sqm
area 4046.8564224: acre acres
area 10000: hectare hectares ha
mass 0.000001: microgram micrograms mcg
mass 0.001: milligram milligrams mg
mass 1: gram grams g gm gms
mass 1000: kilogram kilograms kg kgs kilo kilos
mass 28.349523125: ounce ounces oz
mass 453.59237: pound pounds lb lbs
mass 6350.29318: stone stones
mass 1000000: ton tons tonne tonnes
volume 0.001: milliliter milliliters ml
volume 0.01: centiliter cl
volume 1: liter liters l
volume 3.785411784: gallon gallons
volume 0.473176473: pint pints
volume 0.2365882365: cup cups
volume 0.01478676478125: tablespoon tablespoons tbsp
volume 0.00492892159375: teaspoon teaspoons tsp
speed 0.44704: mph
speed 0.277777777777778: km/h kmh kph
data 0.125: bit bits
data 1: byte bytes
data 1000: kb kilobyte kilobytes
data 1000000: mb megabyte megabytes
data 1000000000: gb gigabyte gigabytes gig gigs
data 1000000000000: tb terabyte terabytes
celsius 1: celsius centigrade
fahrenheit 1: fahrenheit
kelvin 1: kelvin
degree 1: degree degrees deg
energy 1: joule joules
energy 4.184: calorie calories
energy 4184: kcal kilocalorie kilocalories
power 1: watt watts w
power 1000: kilowatt kilowatts kw
energy 3600000: kwh
voltage 1: volt volts v
current 1: amp amps ampere amperes
frequency 1: hertz hz
frequency 1000000: mhz megahertz
frequency 1000000000: ghz gigahertz
pressure 100000: bar bars
pressure 6894.757: psi
percent 1: percent pct percentage
dollar 1: dollar dollars usd bucks
euro 1: euro euros eur
sterling 1: gbp quid
rupee 1: rupee rupees inr rs
yen 1: yen jpy
lakh 1: lakh lakhs
crore 1: crore crores
"""

UNITS: dict[str, tuple[str, str, float]] = {}
for _row in _ROWS.strip().splitlines():
    _head, _, _names = _row.partition(":")
    _measure, _factor = _head.split()
    _forms = _names.split()
    for _form in _forms:
        UNITS[_form] = (_forms[0], _measure, float(_factor))

SYMBOLS = {"%": "percent", "$": "dollar", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee", "°": "degree"}

# Written before the number as well as after it.
CURRENCIES = frozenset("$ € £ ¥ ₹ rs usd eur gbp inr".split())

# Too short or too common to be a unit unless a number stands before it.
ONLY_AFTER_A_NUMBER = frozenset(
    """
    s h m g l v w ms mi ha cl rs bar bars min sec stone stones second seconds foot feet pound pounds
    bit bits cup cups yard yards gig gigs kilo kilos ft deg gm usd mm cm kb mb gb tb degree degrees
    percentage bucks day days week weeks month months year years hour hours minute minutes decade decades
    century centuries inr eur gbp lakh crore
    """.split()
)
