"""Countries with their adjectives, and cities that questions name in lower case."""

from __future__ import annotations

# `country adjective ...`: forms of one place.
_COUNTRIES = """
afghanistan afghan, albania albanian, algeria algerian, argentina argentine argentinian, armenia armenian,
australia australian aussie, austria austrian, azerbaijan, bahrain, bangladesh bangladeshi, belarus, belgium belgian,
bolivia bolivian, bosnia bosnian, botswana, brazil brazilian, bulgaria, cambodia cambodian,
cameroon, canada canadian, chile chilean, china, colombia colombian, croatia, cuba cuban, cyprus,
denmark, ecuador, egypt egyptian, estonia estonian, ethiopia ethiopian, finland, france, georgia,
germany, ghana ghanaian, greece, guatemala, haiti haitian, honduras, hungary, iceland, india indian indians,
indonesia, iran iranian, iraq iraqi, ireland, israel israeli, italy, jamaica jamaican, japan, jordan jordanian,
kazakhstan, kenya kenyan, kuwait, latvia latvian, lebanon lebanese, libya, lithuania lithuanian, luxembourg,
malaysia malaysian, malta, mexico mexican, moldova, mongolia mongolian, morocco moroccan, mozambique, myanmar burma,
namibia, nepal nepali nepalese, netherlands holland, nicaragua, nigeria nigerian, norway, oman, pakistan pakistani,
palestine palestinian, panama, paraguay, peru peruvian, philippines filipino, poland, portugal, qatar,
romania, russia, rwanda, scotland scottish scots, senegal, serbia, singapore, slovakia slovak, slovenia slovenian,
somalia, spain, sudan, sweden, switzerland swiss, syria syrian, taiwan taiwanese, tanzania, thailand, tunisia,
turkey, uganda, ukraine, uk britain british, england, wales, usa america american americans, uruguay, uzbekistan, uae,
venezuela, vietnam, yemen, zambia, zimbabwe, europe european, asia asian, africa african, antarctica, eu
"""
PLACES = {form: row.split()[0] for row in _COUNTRIES.split(",") for form in row.split()}

_CITIES = """
london paris berlin madrid rome lisbon vienna amsterdam brussels dublin prague warsaw budapest athens
stockholm oslo copenhagen helsinki moscow istanbul barcelona milan munich hamburg frankfurt zurich geneva
edinburgh glasgow manchester liverpool birmingham leeds bristol oxford cambridge york porto seville naples
venice florence krakow kyiv bucharest sofia belgrade tokyo kyoto osaka beijing shanghai seoul bangkok hanoi
jakarta manila mumbai delhi bangalore bengaluru kolkata chennai hyderabad pune jaipur ahmedabad lucknow
goa kerala punjab gujarat karachi lahore islamabad dhaka kathmandu colombo dubai doha riyadh tehran
baghdad jerusalem cairo nairobi lagos johannesburg casablanca sydney melbourne perth brisbane
auckland wellington toronto vancouver montreal ottawa chicago boston seattle denver houston dallas austin
miami atlanta phoenix philadelphia detroit portland orlando vegas california texas florida ohio oregon
nevada arizona utah alaska hawaii georgia michigan virginia illinois colorado wisconsin minnesota
tennessee kentucky alabama louisiana iowa kansas missouri arkansas wyoming montana idaho nebraska maine
vermont maryland delaware manhattan brooklyn bali santiago bogota lima havana caracas edmonton calgary
"""
PLACES |= {city: city for city in _CITIES.split()}

# Other names of the same country.
NAMES_OF_PLACES = {"america": "usa", "britain": "uk", "holland": "netherlands", "burma": "myanmar"}
