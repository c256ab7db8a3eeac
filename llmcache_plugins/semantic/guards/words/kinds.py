"""Things of one kind: a question about one of them is not answered by the answer about another.

A row is `kind: member, member, ...`; a member of several words stands for the first of them that is not
shared; members joined by `=` mean the same.
"""

from __future__ import annotations

KINDS = """
aspect: symptom=sign, treatment=therapy=cure=remedy, cause=reason, prevention, diagnosis, definition=meaning, history, origin=etymology, purpose=goal, advantage=benefit=pro, disadvantage=drawback=con, risk=danger, requirement=prerequisite=eligibility, alternative=substitute, formula, structure, function, application, property, limitation, rule, law, syllabus, salary=wage=pay, fee, deadline, schedule=timetable, recipe, ingredient, nutrient, calorie, dose=dosage, ending, plot, theme, moral, lyrics, author=writer, director, producer, composer, capital, currency, population, flag, anthem, religion, language, climate, weather, economy, government, constitution, president, geography, area, culture, significance=importance, consequence, solution, architecture, birthplace, birthday, nationality, age, height, weight, wife=husband=spouse, net-worth, nickname, password, username, pin, balance, address, phone, email, website, warranty, refund, return, exchange, delivery=shipping, discount=coupon, invoice=receipt, resume=cv, syntax, use, future, scope
measure: length, width=breadth, height, depth, weight=mass, area, volume, speed=velocity, acceleration, temperature, pressure, density, distance, size, age, price=cost, duration, frequency, wavelength, voltage, current, resistance, power, energy, force, momentum, mean=average, median, mode, variance, range, radius, diameter, circumference, perimeter, angle, altitude, latency, throughput, bandwidth, quantity, quality
colour: red, blue, green, yellow, orange, purple=violet, pink, brown, black, white, gray, gold, silver, turquoise, beige, maroon, magenta, cyan
material: leather, fabric=cloth, cotton, wool, silk, linen, nylon, polyester, denim, suede, velvet, wood=wooden, metal, steel, iron, copper, bronze, brass, aluminum, zinc, lead, tin, titanium, gold, silver, platinum, plastic, glass, ceramic, porcelain, stone, marble, granite, brick, concrete, paper, cardboard, rubber, bamboo, carbon
element: hydrogen, helium, lithium, carbon, nitrogen, oxygen, fluorine, neon, sodium, magnesium, silicon, phosphorus, sulfur, chlorine, potassium, calcium, iron, nickel, copper, zinc, bromine, silver, iodine, gold, mercury, lead, uranium, ethanol, methanol, water, ammonia, benzene
family: mother, father, brother, sister, son, daughter, husband, wife, uncle, aunt, cousin, nephew, niece, grandmother, grandfather, boyfriend, girlfriend, friend, colleague=coworker, neighbor, roommate, boss=manager, partner, fiance, child, baby
audience: child=kid, adult, teenager=teen, baby=infant, toddler, senior=elderly, beginner=novice, expert, student, teacher, parent, man=male, woman=female, boy, girl, couple, single, family, dog, cat, horse, runner, developer=programmer, designer, manager, nurse, tourist=traveler, employee, employer, freelancer
animal: dog=puppy, cat=kitten, horse, cow, pig, sheep, goat, chicken, duck, goose, turkey, rabbit, hamster, mouse, rat, snake, lizard, turtle=tortoise, frog, fish, shark, whale, dolphin, octopus, bear, wolf, fox, lion, tiger, leopard, cheetah, elephant, giraffe, zebra, monkey, gorilla, chimpanzee, kangaroo, koala, panda, penguin, eagle, owl, parrot, crow, pigeon, bee, wasp, ant, spider, mosquito, butterfly, moth, fly, tick, flea, crocodile, alligator, bat, deer, squirrel, hedgehog
body: head, eye, ear, nose, mouth, tooth=teeth, tongue, lip, neck, throat, shoulder, arm, elbow, wrist, hand, finger, thumb, chest, breast, back, belly=stomach=abdomen, waist, hip, thigh, leg, knee, ankle, foot=feet, toe, heel, skin, hair, nail, bone, muscle, heart, lung, liver, kidney, brain, blood, nerve, face, cheek, chin, forehead, beard, eyebrow, spine, bladder, pancreas
food: apple, banana, orange, lemon, lime, grape, strawberry, blueberry, cherry, peach, pear, plum, mango, pineapple, watermelon, avocado, tomato, potato, onion, garlic, carrot, cucumber, pepper, spinach, broccoli, cabbage, lettuce, mushroom, corn, pea, bean, lentil, rice, pasta, bread, noodle, egg, milk, cheese, butter, yogurt, cream, chicken, beef, pork, lamb, fish, salmon, tuna, shrimp, tofu, sugar, salt, honey, chocolate, oil, nut, almond, peanut, flour, oats, pizza, burger, sandwich, salad, soup, cake, pie, cookie, sushi, hummus, taco
drink: water, coffee, tea, milk, juice, beer, wine, whiskey, vodka, rum, gin, tequila, cola, soda, lemonade, smoothie, champagne, cider, cocoa
meal: breakfast, lunch, dinner=supper, brunch, dessert, snack, starter
cooking: boil, fry, bake, roast, grill=barbecue, steam, poach, simmer, microwave, saute, freeze, marinate, peel, chop, pickle, smoke
sport: football=soccer, basketball, baseball, tennis, golf, cricket, rugby, hockey, volleyball, badminton, boxing, wrestling, judo, karate, swimming, running, cycling, skiing, snowboarding, skating, surfing, rowing, sailing, climbing, yoga, pilates, chess, poker, squash, archery, fencing, gymnastics, kabaddi, marathon, triathlon
instrument: guitar, piano, violin, drum, flute, cello, trumpet, saxophone, clarinet, harp, ukulele, bass, keyboard, harmonica, banjo, accordion
vehicle: car=automobile, bus=coach, train, tram, bicycle, motorcycle=motorbike, truck=lorry, van, taxi=cab, aeroplane=aircraft, helicopter, ship, boat, ferry, scooter, tractor, subway=metro, rocket, drone
device: laptop, desktop, tablet, smartphone=phone=mobile, television, monitor, keyboard, mouse, printer, scanner, router, modem, camera, speaker, headphone=earphone, microphone, projector, watch, console, refrigerator, oven, microwave, dishwasher, dryer, toaster, kettle, vacuum, freezer, stove, thermostat
room: kitchen, bathroom, bedroom, garage, basement, attic, garden, balcony, living-room, office, hallway
furniture: chair, table, desk, sofa=couch, bed, wardrobe, shelf, cupboard, drawer, mattress, lamp, carpet=rug, curtain
clothing: shirt, trousers=pants, jeans, skirt, dress, shoe, boot, sock, hat, coat, jacket, sweater, glove, scarf, tie, suit, belt, swimsuit, sneaker, sandal, bra, underwear
goods: shoe, electronics, clothes=clothing, furniture, jewelry, book, toy, grocery, cosmetic, medicine, gift
genre: poem, haiku, limerick, sonnet, song, story, essay, novel, letter, email, speech, report, summary, review, article, blog, script, play, joke, riddle, proverb, tweet, press-release, biography, autobiography, slogan, caption, paragraph, sentence, list, table, outline
film: movie, book, novel, song, album, game, series, show, documentary, anime, cartoon, podcast, play, musical, opera, poem, painting, comic, manga
mood: comedy, drama, horror, romantic=romance, thriller, action, fantasy, mystery, western, historical, science-fiction
role: director, producer, actor, actress, writer=author, composer, singer, painter, sculptor, architect, inventor, founder, owner, captain, coach, president, minister, king, queen, emperor, mayor, governor, senator, judge, lawyer=attorney, doctor=physician, nurse, dentist, pharmacist, surgeon, psychologist, psychiatrist, therapist, teacher, professor, student, engineer, scientist, accountant, banker, broker, chef=cook, waiter, pilot, driver, soldier, officer, plumber, electrician, carpenter, mechanic, farmer, journalist, photographer, librarian, translator, ceo, cfo, cto, landlord, tenant, client, server
made: direct, produce, write, compose, sing, paint, sculpt, design, invent, discover, found, play, publish, edit, translate, illustrate, star
subject: mathematics, physics, chemistry, biology, history, geography, economics, psychology, sociology, philosophy, literature, law, medicine, engineering, accounting, finance, marketing, architecture, art, music, astronomy, geology, statistics, computer-science, linguistics, nursing, journalism, politics, business, theology, anthropology, archaeology, algebra, calculus, geometry, trigonometry
engineering: mechanical, electrical, civil, chemical, electronics, aerospace=aeronautical, software, biomedical, industrial, automotive=automobile, marine, petroleum, nuclear, mining, textile, metallurgical, instrumentation, environmental, agricultural
degree: bachelor, master, doctorate=phd, diploma, certificate, mba, bba, bsc, msc, bcom, mcom, btech, mtech, undergraduate, postgraduate, graduate
study: school, college, university, kindergarten, academy, bootcamp
programming: python, java, javascript, typescript, ruby, perl, php, rust, go=golang, swift, kotlin, scala, haskell, c, c++, c#, r, matlab, fortran, cobol, lua, julia, bash, sql, html, css, elixir, erlang, clojure, pascal, dart, prolog
framework: django, flask, fastapi, rails, spring, laravel, react, angular, vue, svelte, express, nextjs, numpy, pandas, tensorflow, pytorch, keras, hadoop, spark, kafka, rabbitmq, jquery, bootstrap, tailwind
database: mysql, postgresql, sqlite, oracle, mongodb=mongo, redis, cassandra, mariadb, dynamodb, elasticsearch, snowflake, bigquery, memcached, neo4j
system: windows, linux, macos=mac, ios, android, ubuntu, debian, fedora, centos, unix, chromeos
browser: chrome, firefox, safari, edge, opera, brave
format: pdf, word, excel, csv, json, xml, yaml, html, markdown, png, jpg=jpeg, gif, svg, mp3, mp4, wav, zip, docx, xlsx, powerpoint, txt, toml, parquet
protocol: tcp, udp, http, https, ftp, sftp, ssh, smtp, imap, pop3, dns, dhcp, grpc, rest, soap, graphql, websocket, mqtt, bluetooth, usb, hdmi
structure: array, list, tuple, dictionary, set, queue, stack, tree, graph, heap, string, integer, float, boolean, class, function, interface, enum, struct, pointer
statement: for, while, if, switch, try, insert, update, delete, select, inner, left, right, outer, cross, merge, rebase, commit, push, pull, fetch, stash, reset, revert, checkout, map, filter, reduce, sort, reverse, stop, kill, start, restart, pause
hue: solid, liquid, gas, plasma
tense: present, past, future
person: first, second, third
visa: tourist, student, work, business, transit, spouse, residence
plan: basic, standard, premium, pro, team, enterprise, free, family, individual, student, business, starter, trial, prepaid, postpaid, contract
network: facebook, instagram, twitter, linkedin, youtube, whatsapp, snapchat, tiktok, reddit, quora, telegram, pinterest, discord, skype, tinder, gmail, messenger, zoom, slack, teams, yahoo, hotmail, outlook
company: google, apple, microsoft, amazon, netflix, spotify, tesla, samsung, sony, nokia, intel, amd, nvidia, ibm, dell, hp, lenovo, asus, acer, huawei, xiaomi, oneplus, motorola, uber, lyft, airbnb, ebay, walmart, ikea, paypal, visa, mastercard, adobe, salesforce, infosys, tcs, wipro, accenture, deloitte, pwc, kpmg, toyota, honda, ford, bmw, audi, mercedes, volkswagen, nike, adidas, zara, uniqlo, flipkart, lufthansa, ryanair, emirates
religion: christianity=christian, islam=muslim=islamic, hinduism=hindu, buddhism=buddhist, judaism=jewish, sikhism=sikh, atheism=atheist, catholic, protestant, mormon
disease: diabetes, cancer, influenza, cold, asthma, malaria, tuberculosis, pneumonia, bronchitis, hepatitis, hiv, aids, stroke, arthritis, migraine, depression, anxiety, autism, adhd, alzheimer, parkinson, epilepsy, anemia, eczema, psoriasis, acne, allergy, obesity, measles, chickenpox, covid, dengue, cholera, leukemia, schizophrenia, insomnia, gout, scoliosis, pimple, wart, ulcer, hernia
drug: ibuprofen, paracetamol=acetaminophen, aspirin, naproxen, penicillin, amoxicillin, insulin, metformin, antibiotic, vitamin, caffeine, alcohol, nicotine, cannabis=marijuana, cocaine, heroin, morphine, codeine, xanax, prozac, viagra
money: dollar, euro, pound, yen, rupee, yuan, franc, peso, ruble, won, lira, bitcoin, ethereum
finance: stock=share, bond, fund, option, future, currency, gold, property, crypto, savings, checking, pension, mortgage, loan, insurance, tax, dividend
language: english, french, german, spanish, italian, portuguese, dutch, russian, polish, czech, swedish, norwegian, danish, finnish, greek, turkish, arabic, hebrew, persian=farsi, hindi, urdu, bengali, tamil, telugu, punjabi, gujarati, marathi, chinese=mandarin, cantonese, japanese, korean, vietnamese, thai, indonesian, malay, swahili, latin, sanskrit, ukrainian, hungarian, romanian, bulgarian, croatian, serbian, irish, welsh, icelandic
planet: mercury, venus, earth, mars, jupiter, saturn, uranus, neptune, pluto, moon, sun
shape: circle, square, triangle, rectangle, cube, sphere, cylinder, cone, pyramid, pentagon, hexagon, ellipse, parabola, trapezoid, rhombus
government: federal, state, local, municipal
direction: north, south, east, west, northeast, northwest, southeast, southwest
travel: flight, hotel, cruise, train, bus, car, hostel, airbnb
water: river, lake, ocean, sea, pond, stream
land: mountain, hill, valley, desert, forest, island, beach, volcano, canyon, glacier, plain
storm: rain, snow, hail, thunder, lightning, hurricane, tornado, earthquake, flood, drought, tsunami, fog, rainbow
institution: hospital, pharmacy, bank, school, library, museum, restaurant, cafe, bar, hotel, airport, station, supermarket, church, mosque, temple, theater, cinema, gym, police, embassy, prison, zoo
sense: sight, hearing, smell, taste, touch
act: install, update, upgrade, delete, create, open, close, save, print, copy, paste, move, rename, share, send, download, upload, export, import, edit, format, sort, reset, restore, backup, cancel, order, return, activate, renew, transfer, verify, merge, split, convert, translate, summarize, encrypt
learn: learn, teach, forget
consume: eat, drink, smoke, inhale, inject, swallow, chew
legs: walk, run, drive, fly, swim, cycle, sail, climb, crawl, jump
trade: buy=purchase, sell, rent=lease=hire, borrow, lend, donate, steal
wash: wash, dry, iron, fold, dye, bleach
heal: prevent, treat=cure, diagnose, cause
verb: read, write, speak, listen
acquire: make, break, fix=repair
"""
