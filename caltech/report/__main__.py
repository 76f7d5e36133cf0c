from caltech.report.typed import main

main()
